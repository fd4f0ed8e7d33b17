"""The trainer: recipe -> rows and classes -> steps -> checkpoints that `publish` takes.

recipe.py       a YAML file -> Recipe                        (schedules.py: the rate of every step)
datasets.py     folders, files, or a seed -> pictures and classes
augmentation.py picture, chance -> row                       (the model's own preprocessing where nothing is random)
feeding.py      dataset, epoch -> batches in their order     (threads)
loop.py         the loop                                     (learner.py: what it asks of a framework)
torch_learner.py, mindspore_learner.py
savepoints.py   the state of a run <-> a checkpoint file
evaluation.py   answers and classes -> accuracy, confusion
                (served.py: the same of a served model)
sending.py      a run's folder -> a URL                      (models/storage.py)
watching.py     steps and epochs -> those who watch: lines of a file, progress.py, tensorboard.py, report.py
"""
