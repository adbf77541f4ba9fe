"""What other libraries' trainers do otherwise than `transformers.Trainer`; none of them is imported here."""
