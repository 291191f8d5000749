"""`python -m vlm_pruner`: the command line, where its script is not on the path."""

from vlm_pruner.cli import main

if __name__ == "__main__":
    main()
