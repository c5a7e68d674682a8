"""`python -m components.collect`."""

from components.collect.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
