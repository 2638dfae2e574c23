"""Fine-tuning of pruned models: trainers, masks, gradients for importance."""
