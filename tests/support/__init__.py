"""What several test folders use: a server as a user would start it, clients, left-over checks."""
