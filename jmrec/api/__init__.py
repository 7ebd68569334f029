"""What `import jmrec` gives beside the libraries: the work of the commands as functions.

A function here and the command of that name call the same code, so that a workdir is the same
whoever made it. Nothing that computes is imported before a function needs it.
"""
