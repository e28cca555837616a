"""The pack of remedies that make a trained model smaller to be deployed: quantize, prune, distill."""
