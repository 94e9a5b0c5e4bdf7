"""What fine-tuning did to a model: any models scored on any sets, item by item, and compared in pairs."""
