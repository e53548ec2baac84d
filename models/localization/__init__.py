"""Classification with localization: models that predict one class and one box per image."""
