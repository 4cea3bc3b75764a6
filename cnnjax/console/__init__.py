"""What is read from and shown in a terminal."""
