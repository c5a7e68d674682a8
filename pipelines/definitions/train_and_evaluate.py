"""The pipeline `train_and_evaluate`: from demonstrations to leaderboard and champion.

1. dataset: bring a version of the demonstrations and check it.
2. statistics: normalisation, noise correlation, human means.
3. train: the common policy on all tasks.
4. plan and evaluate: the common policy on validation instances.
5. group: split the tasks by validation score.
6. train: one policy per group, from the common one.
7. plan and evaluate: the groups' policies, the common and the untrained one.
8. leaderboard: choose a policy per task on validation, score the reported instances.
9. promote: replace the champion on evidence.

Where kfp.local and the cluster would differ, we do not go: `dag_rules.py` holds the rules.
"""

from kfp import dsl

from components.dataset.component import dataset
from components.evaluate.component import evaluate
from components.group.component import group
from components.leaderboard.component import leaderboard_groups
from components.plan.component import plan, plan_groups
from components.promote.component import promote_groups
from components.statistics.component import statistics
from components.train.component import train
from pipelines.definitions.profiles.profile import Profile

NAME = "train-and-evaluate"


def train_and_evaluate_pipeline(profile: Profile) -> dsl.graph_component.GraphComponent:
    """Build the pipeline for a profile, which gives images, resources and parallelism of its steps."""

    @dsl.pipeline(
        name=NAME,
        display_name="Train and evaluate",
        description="From demonstrations to leaderboard: train, fine-tune per task group, evaluate, promote.",
    )
    def train_and_evaluate(
        repository: str = "",
        revision: str = "HEAD",
        path: str = "data",
        remote: str = "",
        tasks: str = "",
        model: str = "tiny",
        network: str = "",
        initial_checkpoint: str = "",
        steps: int = 1000,
        batch_size: int = 64,
        peak_learning_rate: float = 1e-3,
        final_learning_rate: float = 1e-5,
        warmup_steps: int = 50,
        group_steps: int = 300,
        group_peak_learning_rate: float = 3e-4,
        group_warmup_steps: int = 20,
        flow_samples: int = 4,
        ema_decay: float = 0.99,
        augment: bool = True,
        fsdp: int = 1,
        save_every: int = 100,
        log_every: int = 20,
        frame_cache: bool = True,
        track_training: bool = True,
        evaluator: str = "household",
        edition: str = "2026",
        validation_instances: int = 10,
        reported_instances: int = 10,
        rollouts: int = 1,
        workers: int = 2,
        untrained: bool = True,
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
        best: float = 0.5,
        good: float = 0.0,
        minimum_groups: int = 1,
        team: str = "team",
        affiliation: str = "independent",
        track: str = "standard",
        testset: str = "public",
        champion: str = "",
        seed: int = 0,
        workspace: str = "/workspace",
    ) -> None:
        """From demonstrations to leaderboard and champion.

        Args:
            repository: Folder or URL of the git repository in which DVC keeps the demonstrations.
            revision: Branch, tag or commit of the version of the demonstrations.
            path: Folder of the dataset in that repository.
            remote: DVC remote, a name, folder or URL (s3://bucket/prefix); empty for the default one.
            tasks: Names of the tasks with spaces between; empty for all tasks of the dataset.
            model: Size of the network, tiny, small or full.
            network: Fields of the network to change, as name=value with spaces between (noise_beta=0).
            initial_checkpoint: Folder of a checkpoint that the common policy starts from, such as an import
                of Pi0.5 base (`b1k checkpoint import`); empty for random values.
            steps: Gradient steps of the common policy.
            batch_size: Observations per gradient step, over all GPUs.
            peak_learning_rate: Learning rate of the common policy after warm-up.
            final_learning_rate: Learning rate at the end of the cosine decay.
            warmup_steps: Steps of linear warm-up of the common policy.
            group_steps: Gradient steps of each group's policy.
            group_peak_learning_rate: Learning rate of the groups' policies after warm-up.
            group_warmup_steps: Steps of linear warm-up of the groups' policies.
            flow_samples: Pairs of time and noise per observation and step.
            ema_decay: Decay of the moving average of the weights.
            augment: Augment images in training.
            fsdp: GPUs that share parameters and optimizer state; the others are data-parallel.
            save_every: Steps between saved states, which a killed training continues from.
            log_every: Steps between logged metrics.
            frame_cache: Decode all videos once into the workspace; needs space for raw frames.
            track_training: Log training to Weights & Biases.
            evaluator: Simulator, household or omnigibson.
            edition: Edition of the challenge, 2025 or 2026: its rules count, its evaluator runs.
            validation_instances: Instances per task that policies are chosen on.
            reported_instances: Instances per task that scores are computed on.
            rollouts: Rollouts per instance.
            workers: Most evaluation workers.
            untrained: Score the untrained policy as well, for comparison.
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
            best: Validation score from which a task is in the group best.
            good: Validation score above which a task is otherwise in the group good, and else in bad.
            minimum_groups: Fewest groups; with fewer by score, tasks are split by rank.
            team: Name of the team in the submission.
            affiliation: Affiliation of the team in the submission.
            track: Track of the submission, standard or privileged.
            testset: Test set of the submission, public or hidden.
            champion: Folder of the champion's record; empty for champion in the workspace.
            seed: Seed of initialisation, batches, noise and bootstrap.
            workspace: Folder that all stages share.
        """
        data = dataset(
            workspace=workspace, repository=repository, revision=revision, path=path, remote=remote
        )
        profile.apply(data, "dataset", "Dataset")
        data_statistics = statistics(workspace=workspace, dataset=data.outputs["artifact"], tasks=tasks)
        profile.apply(data_statistics, "statistics", "Statistics")
        training = {
            "workspace": workspace,
            "dataset": data.outputs["artifact"],
            "statistics": data_statistics.outputs["artifact"],
            "model": model,
            "network": network,
            "batch_size": batch_size,
            "flow_samples": flow_samples,
            "final_learning_rate": final_learning_rate,
            "ema_decay": ema_decay,
            "augment": augment,
            "fsdp": fsdp,
            "save_every": save_every,
            "log_every": log_every,
            "frame_cache": frame_cache,
            "track": track_training,
            "seed": seed,
        }
        common = train(
            name="common",
            initial_checkpoint=initial_checkpoint,
            tasks=tasks,
            steps=steps,
            peak_learning_rate=peak_learning_rate,
            warmup_steps=warmup_steps,
            keep_initial=True,
            **training,
        )
        profile.apply(common, "train", "Train common")
        evaluation = {
            "workspace": workspace,
            "tasks": tasks,
            "edition": edition,
            "validation_instances": validation_instances,
            "reported_instances": reported_instances,
            "rollouts": rollouts,
            "workers": workers,
            "videos": videos,
            "evaluator": evaluator,
            "image_size": image_size,
            "action_chunk_size": action_chunk_size,
            "execute": execute,
            "compress_from": compress_from,
            "num_steps": num_steps,
            "voting": voting,
            "gripper": gripper,
            "task_rules": task_rules,
            "inpainting": inpainting,
            "seed": seed,
        }
        validation_plan = plan(models=common.outputs["artifact"], sets="validation", **evaluation)
        profile.apply(validation_plan, "plan", "Plan validation")
        with dsl.ParallelFor(
            validation_plan.outputs["Output"], name="Evaluate common", parallelism=profile.evaluations
        ) as share:
            validation = evaluate(
                workspace=workspace, plan=validation_plan.outputs["artifact"], worker=share.worker
            )
            profile.apply(validation, "evaluate", "Evaluate common")
        groups = group(
            workspace=workspace,
            rollouts=dsl.Collected(validation.outputs["artifact"]),
            best=best,
            good=good,
            minimum=minimum_groups,
        )
        profile.apply(groups, "group", "Group")
        with dsl.ParallelFor(
            groups.outputs["Output"], name="Train groups", parallelism=profile.trainings
        ) as task_group:
            tuned = train(
                initial=common.outputs["artifact"],
                # `.name` would be the name of the SDK's own object
                name=task_group.__getattr__("name"),
                tasks=task_group.tasks,
                steps=group_steps,
                peak_learning_rate=group_peak_learning_rate,
                warmup_steps=group_warmup_steps,
                keep_initial=False,
                **training,
            )
            profile.apply(tuned, "train", "Train group")
        reported_plan = plan_groups(
            groups=groups.outputs["artifact"],
            sets="validation reported",
            untrained=untrained,
            first_models=common.outputs["artifact"],
            models=dsl.Collected(tuned.outputs["artifact"]),
            **evaluation,
        )
        profile.apply(reported_plan, "plan", "Plan reported")
        with dsl.ParallelFor(
            reported_plan.outputs["Output"], name="Evaluate groups", parallelism=profile.evaluations
        ) as share:
            reported = evaluate(
                workspace=workspace, plan=reported_plan.outputs["artifact"], worker=share.worker
            )
            profile.apply(reported, "evaluate", "Evaluate groups")
        board = leaderboard_groups(
            workspace=workspace,
            plan=reported_plan.outputs["artifact"],
            reported=dsl.Collected(reported.outputs["artifact"]),
            rollouts=dsl.Collected(validation.outputs["artifact"]),
            team=team,
            affiliation=affiliation,
            track=track,
            testset=testset,
            edition=edition,
            seed=seed,
            first_models=common.outputs["artifact"],
            models=dsl.Collected(tuned.outputs["artifact"]),
        )
        profile.apply(board, "leaderboard", "Leaderboard")
        promotion = promote_groups(
            workspace=workspace,
            leaderboard=board.outputs["artifact"],
            champion=champion,
            seed=seed,
            first_models=common.outputs["artifact"],
            models=dsl.Collected(tuned.outputs["artifact"]),
        )
        profile.apply(promotion, "promote", "Promote")

    return train_and_evaluate
