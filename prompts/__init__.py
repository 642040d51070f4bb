"""What is said about a class: descriptor files, and the phrases that CLIP reads."""
