"""The pipeline `evaluate`: score a trained policy, build its leaderboard, and promote it on evidence.

1. importer: the policy, an artifact of the stage train.
2. plan and evaluate: validation and reported instances.
3. leaderboard: score the reported instances, package the submission.
4. promote: replace the champion on evidence.
"""

from kfp import dsl

from components.evaluate.component import evaluate
from components.leaderboard.component import leaderboard
from components.plan.component import plan
from components.promote.component import promote
from pipelines.definitions.profiles.profile import Profile

NAME = "evaluate-policy"


def evaluate_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources and parallelism of its steps."""

    @dsl.pipeline(
        name=NAME,
        display_name="Evaluate",
        description="Score a trained policy, build its leaderboard, and promote it on evidence.",
    )
    def evaluate_policy(
        policy: str,
        tasks: str = "",
        evaluator: str = "household",
        edition: str = "2026",
        validation_instances: int = 10,
        reported_instances: int = 10,
        rollouts: int = 1,
        workers: int = 2,
        untrained: bool = False,
        videos: int = 2,
        image_size: int = 56,
        action_chunk_size: int = 0,
        execute: int = 20,
        compress_from: int = 26,
        num_steps: int = 20,
        voting: str = "published",
        gripper: str = "data",
        task_rules: str = "off",
        inpainting: str = "soft",
        team: str = "team",
        affiliation: str = "independent",
        track: str = "standard",
        testset: str = "public",
        champion: str = "",
        seed: int = 0,
        workspace: str = "/workspace",
    ) -> None:
        """Score a trained policy, build its leaderboard, and promote it on evidence.

        Args:
            policy: Folder of the policy, an artifact of the stage train in the workspace.
            tasks: Names of the tasks with spaces between; empty for those it was trained on.
            evaluator: Simulator, household or omnigibson.
            edition: Edition of the challenge, 2025 or 2026: its rules count, its evaluator runs.
            validation_instances: Instances per task that policies are chosen on.
            reported_instances: Instances per task that scores are computed on.
            rollouts: Rollouts per instance.
            workers: Most evaluation workers.
            untrained: Score the policy's untrained parameters as well, if they were kept.
            videos: Videos per task and policy.
            image_size: Side of the policy's pictures in pixels, where the simulator lets us choose it.
            action_chunk_size: Actions per request to the policy; 0 asks for one at a time.
            execute: Actions executed of each predicted chunk.
            compress_from: Predicted steps that are compressed to the executed ones.
            num_steps: Euler steps of the flow.
            voting: Stage tracking, published (vote of three predictions), off (the last one) or oracle.
            gripper: Gripper rule, data (table from the demonstrations), published (made by hand) or off.
            task_rules: Rules for single tasks, published or off.
            inpainting: How a chunk starts with what the last one left over, soft, hard or off.
            team: Name of the team in the submission.
            affiliation: Affiliation of the team in the submission.
            track: Track of the submission, standard or privileged.
            testset: Test set of the submission, public or hidden.
            champion: Folder of the champion's record; empty for champion in the workspace.
            seed: Seed of noise and bootstrap.
            workspace: Folder that all stages share.
        """
        imported = dsl.importer(artifact_uri=policy, artifact_class=dsl.Model, reimport=False)
        imported.set_display_name("Policy")
        shares = plan(
            workspace=workspace,
            models=imported.output,
            sets="validation reported",
            tasks=tasks,
            edition=edition,
            validation_instances=validation_instances,
            reported_instances=reported_instances,
            rollouts=rollouts,
            workers=workers,
            untrained=untrained,
            videos=videos,
            evaluator=evaluator,
            image_size=image_size,
            action_chunk_size=action_chunk_size,
            execute=execute,
            compress_from=compress_from,
            num_steps=num_steps,
            voting=voting,
            gripper=gripper,
            task_rules=task_rules,
            inpainting=inpainting,
            seed=seed,
        )
        profile.apply(shares, "plan", "Plan")
        with dsl.ParallelFor(
            shares.outputs["Output"], name="Evaluate", parallelism=profile.evaluations
        ) as share:
            scored = evaluate(workspace=workspace, plan=shares.outputs["artifact"], worker=share.worker)
            profile.apply(scored, "evaluate", "Evaluate")
        board = leaderboard(
            workspace=workspace,
            plan=shares.outputs["artifact"],
            reported=dsl.Collected(scored.outputs["artifact"]),
            models=imported.output,
            team=team,
            affiliation=affiliation,
            track=track,
            testset=testset,
            edition=edition,
            seed=seed,
        )
        profile.apply(board, "leaderboard", "Leaderboard")
        promotion = promote(
            workspace=workspace,
            leaderboard=board.outputs["artifact"],
            models=imported.output,
            champion=champion,
            seed=seed,
        )
        profile.apply(promotion, "promote", "Promote")

    return evaluate_policy
