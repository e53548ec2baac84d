"""``striate sweep``: runs a sweep file of W&B with Optuna, without an account and without a network connection."""
