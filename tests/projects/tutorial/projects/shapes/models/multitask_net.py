from torch import nn


class MultiTaskNet(nn.Module):
    def __init__(self, num_classes_classification=4, num_classes_segmentation=2):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
        self.classification_head = nn.Linear(6, num_classes_classification)
        self.segmentation_head = nn.Conv2d(6, num_classes_segmentation, kernel_size=1)

    def forward(self, x):
        features = self.backbone(x)
        return {
            "classification": self.classification_head(features.mean(dim=(2, 3))),
            "segmentation": self.segmentation_head(features),
        }
