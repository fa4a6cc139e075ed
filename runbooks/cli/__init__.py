"""How a command line becomes a run: one decorator for every task, and the desk where the world is put together."""
