"""`python -m components.prepare`."""

from components.prepare.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
