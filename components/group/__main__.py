"""`python -m components.group`."""

from components.group.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
