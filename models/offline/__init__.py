"""Tools around programs that run a network elsewhere, on files: photos -> raw tensors -> results -> accuracy.

photos.py    a folder of photos, or CIFAR-10 -> pictures, their names and classes
tensors.py   pictures -> a file of numbers for each, or for each batch
infos.py     files -> the list of them that the benchmark tool reads
labels.py    pictures -> a file of their classes -> the class of a name, or of a place in a batch
scores.py    text results and labels -> accuracy      (raw.py: raw results)
metric.py    how often the right class was first, or among the first ones -> report, JSON
"""
