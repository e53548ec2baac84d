"""DigitScenes: real digits composed on real photographs, with annotations for all five tasks."""
