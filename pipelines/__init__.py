"""The Kubeflow pipelines and the b1k command."""
