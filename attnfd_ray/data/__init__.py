"""What goes in: datasets, the joint transforms of image and mask, the loaders, the checker, and a
generated set.

May import config, registry, errors and models. What others need: `dataset.open_dataset`,
`check.quick_check`, `loader.TrainLoader`, `loader.val_batches`, `toyscenes.write_toyscenes`.
"""
