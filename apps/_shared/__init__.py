"""What several ready-made plugins share. No plugin of a user imports it: names here may change at any time."""
