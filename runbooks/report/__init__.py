"""What people read afterwards: answers of commands, and the reports of drills."""
