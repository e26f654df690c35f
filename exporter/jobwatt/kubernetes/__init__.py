"""What Kubernetes tells of a node's pods, and which GPUs they were given.

The API server is watched, or a kubelet asked, in threads of their own; the sampler takes the latest
word.
"""
