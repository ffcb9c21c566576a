"""Scores of generated pictures, and checks that they show solid objects.

protocol.evaluate(source, real, *, extractor="cars", n_fake=None, ..., results="runs/results.csv") -> Scores
protocol.score(source, real, extractor="cars", *, n_fake=None, n_real=None, ...) -> Scores
samples.render_samples(generator, indices, seed=0, truncation=1.0, ...) -> Rendered
consistency.consistency(generator, n=16, *, views=8, ...) -> numbers by name
features.load_extractor(name, weights=None) -> Extractor
pictures.PictureFolder(path)     pictures that some other program wrote
"""
