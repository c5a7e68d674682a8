"""`python -m components.train`."""

from components.train.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
