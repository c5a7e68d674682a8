"""`python -m components.promote`."""

from components.promote.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
