"""Files for an operator: routes with the plugins of a runner in them, and what starts the runner.

Each module makes the files of one kind, as text. The command line finds the plugins, and prints the text.
"""
