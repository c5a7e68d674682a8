"""`python -m components.trial`."""

from components.trial.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
