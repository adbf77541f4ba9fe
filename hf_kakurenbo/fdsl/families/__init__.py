"""The formulas: how a category is drawn at random, and how an instance varies it. One file a family."""
