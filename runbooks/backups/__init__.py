"""Backups: taken, listed, read again, proved. The commands that use them are the runbooks beside this folder."""
