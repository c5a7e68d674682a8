"""`python -m components.leaderboard`."""

from components.leaderboard.stage import STAGE

if __name__ == "__main__":
    STAGE.main()
