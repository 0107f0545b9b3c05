"""What several ready-made plugins share. It is private: names in here may change at any time."""
