"""Datasets, the joint transforms of image and mask, loaders, the dataset check, generated sets.

May import config, registry and errors. Entry points: `datasets.base.open_dataset`,
`checker.check.quick_check`, `loading.loader.TrainLoader`, `loading.loader.val_batches` and
`generate.toyscenes.write_toyscenes`.
"""
