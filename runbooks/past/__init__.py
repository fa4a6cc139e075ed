"""The state from before an incident, as rows are read from it: how it is made, a session on it, its removal."""
