"""The three networks: described as data, weighted, written as a deployment graph, published as a bundle.

networks -> layers -> weights -> graph -> golden -> bundle -> publish
checkpoints: files of MindSpore, PyTorch and safetensors <-> weights
frameworks: networks and weights <-> what PyTorch and MindSpore train; initial: weights to train from
hub: a name and weights -> the network as an object; unfolding: a bundle -> its network, weights, preprocessing
offline: tools around programs that run a network elsewhere, on files

`models` and `service` never import each other: what joins them is the bundle on disk.
"""
