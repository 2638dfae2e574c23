"""Where frames and labels come from, and where results go."""
