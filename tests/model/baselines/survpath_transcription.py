"""SurvPath written down plainly from its paper (Jaume et al., CVPR 2024), with one network per pathway."""

import torch
from torch import Tensor, nn

from subfuse.model.baselines.survpath import SurvPath


class SurvPathTranscription(nn.Module):
    """One patient's logits; every pathway is encoded on its own, and all tokens stand side by side.

    Args:
        sizes: Number of genes of each pathway.
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        token_dim: Width of the tokens.
        attention_dim: Width of attention.
        dropout: Probability of dropout.
    """

    def __init__(
        self, sizes: list[int], n_outputs: int, *, patch_dim: int, token_dim: int, attention_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(
            nn.Sequential(_block(size, token_dim, dropout), _block(token_dim, token_dim, dropout)) for size in sizes
        )
        self.patch_projection = nn.Linear(patch_dim, token_dim)
        self.to_qkv = nn.Linear(token_dim, 3 * attention_dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(attention_dim, attention_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(attention_dim, attention_dim),
        )
        self.layer_norm = nn.LayerNorm(attention_dim)
        self.classifier = nn.Linear(2 * attention_dim, n_outputs)

    def forward(self, patches: Tensor, genes: list[Tensor]) -> Tensor:
        """Logits (1, output) of patches (1, patch, feature) and the genes (1, gene) of every pathway."""
        n = len(self.pathways)
        pathways = [encoder(values).relu() for encoder, values in zip(self.pathways, genes, strict=True)]
        tokens = torch.cat([torch.stack(pathways, dim=1), self.patch_projection(patches)], dim=1)
        query, key, value = self.to_qkv(tokens).chunk(3, dim=-1)
        query = query * query.shape[-1] ** -0.5
        between_pathways = torch.einsum("bid,bjd->bij", query[:, :n], key[:, :n])
        pathways_to_patches = torch.einsum("bid,bjd->bij", query[:, :n], key[:, n:])
        patches_to_pathways = torch.einsum("bid,bjd->bij", query[:, n:], key[:, :n])
        of_pathways = torch.cat([between_pathways, pathways_to_patches], dim=-1).softmax(dim=-1) @ value
        of_patches = patches_to_pathways.softmax(dim=-1) @ value[:, :n]
        attended = self.layer_norm(self.feed_forward(torch.cat([of_pathways, of_patches], dim=1)))
        return self.classifier(torch.cat([attended[:, :n].mean(dim=1), attended[:, n:].mean(dim=1)], dim=1))


def _block(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.ELU(), nn.AlphaDropout(dropout))


def transcribed(model: SurvPath, dropout: float = 0.0) -> SurvPathTranscription:
    """The transcription with the model's weights."""
    tokens, attention_dim = model.pathway_tokens, model.to_qkv.out_features // 3
    plain = SurvPathTranscription(
        tokens.sizes,
        len(model.head.bias),
        patch_dim=model.patch_projection.in_features,
        token_dim=model.patch_projection.out_features,
        attention_dim=attention_dim,
        dropout=dropout,
    ).to(model.head.bias.dtype)
    *feed_forward, norm = model.feed_forward
    plain.patch_projection.load_state_dict(model.patch_projection.state_dict())
    plain.to_qkv.load_state_dict(model.to_qkv.state_dict())
    plain.feed_forward.load_state_dict(nn.Sequential(*feed_forward).state_dict())
    plain.layer_norm.load_state_dict(norm.state_dict())
    with torch.no_grad():
        plain.classifier.weight.copy_(model.head.weight[0])
        plain.classifier.bias.copy_(model.head.bias)
        for index, first_weight in enumerate(tokens.first_weight.split(tokens.sizes)):
            (first, *_), (second, *_) = plain.pathways[index]
            first.weight.copy_(first_weight.T)
            first.bias.copy_(tokens.first_bias[index])
            second.weight.copy_(tokens.second_weight[index].T)
            second.bias.copy_(tokens.second_bias[index])
    return plain
