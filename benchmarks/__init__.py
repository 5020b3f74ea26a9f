"""What produces every number that the README or a results page states."""
