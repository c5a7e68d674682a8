"""`python -m components.statistics`."""

from components.statistics.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
