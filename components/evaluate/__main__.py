"""`python -m components.evaluate`."""

from components.evaluate.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
