"""Runs of a pipeline on a cluster with Kubeflow Pipelines."""
