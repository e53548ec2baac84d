"""Classification with localization: one class and one box per image."""
