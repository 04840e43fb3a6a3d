"""What readers call things: several wordings for every finding, so that a report is no label in disguise.

Data only. A phrase may use {size}, {side} (left, right, bilateral), {zone} (upper, mid, lower), {lung} and
{base} (the left ..., both ...). It keeps to one finding's own words: "opacity" is left to "Lung Opacity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEGREES = ("mild", "moderate", "severe")


@dataclass(frozen=True)
class Words:
    one: tuple[str, ...]  # noun phrases; "a ..." where the noun can be counted
    two: tuple[str, ...] = ()  # the same on both sides, in the plural
    seen: tuple[str, ...] = ()  # whole sentences that assert it
    absent: tuple[str, ...] = ()  # nouns that follow "no"
    normal: tuple[str, ...] = ()  # whole sentences that deny it
    sizes: tuple[str, str, str] = DEGREES  # faint, middling, gross


WORDS: Mapping[str, Words] = {  # in the order of an impression: what must be acted on comes first
    "Pneumothorax": Words(
        one=(
            "a {size} {side} pneumothorax",
            "a {size} {side} apical pneumothorax",
            "a {size} pneumothorax on the {side}",
        ),
        absent=("pneumothorax", "pneumothorax", "appreciable pneumothorax"),
        sizes=("small", "moderate", "large"),
    ),
    "Pneumonia": Words(
        one=("pneumonia", "{side} pneumonia", "{side} {zone} lung pneumonia", "infectious pneumonia"),
        absent=("pneumonia",),
    ),
    "Consolidation": Words(
        one=(
            "{side} {zone} lung consolidation",
            "{size} airspace consolidation in {lung}",
            "{size} consolidation in {lung}",
            "{side} {zone} zone consolidation",
            "patchy {side} consolidation",
        ),
        seen=("{Lung} {has} {size} {zone} zone consolidation.", "Consolidation has developed in {lung}."),
        absent=("focal consolidation", "consolidation", "confluent consolidation", "airspace consolidation"),
        normal=("The lungs are free of focal consolidation.", "The lungs are clear, free of consolidation."),
        sizes=("subtle", "patchy", "dense"),
    ),
    "Edema": Words(
        one=(
            "{size} pulmonary edema",
            "{size} interstitial edema",
            "{size} pulmonary vascular congestion",
            "{size} edema with perihilar predominance",
        ),
        seen=("The pulmonary vasculature is indistinct, in keeping with {size} edema.",),
        absent=("pulmonary edema", "edema", "overt pulmonary edema", "vascular congestion"),
    ),
    "Pleural Effusion": Words(
        one=("a {size} {side} pleural effusion", "a {size} {side} effusion", "{size} {side} pleural fluid"),
        two=("{size} bilateral pleural effusions", "{size} bilateral effusions"),
        seen=("Blunting of {angle} indicates {size} pleural fluid.",),
        absent=("pleural effusion", "pleural effusion", "effusion", "pleural fluid"),
        normal=("Both costophrenic angles are sharp, free of pleural fluid.",),
        sizes=("small", "moderate", "large"),
    ),
    "Atelectasis": Words(
        one=(
            "{size} {side} basilar atelectasis",
            "{size} atelectasis at {base}",
            "plate-like atelectasis at {base}",
            "{side} subsegmental atelectasis",
        ),
        seen=("{Base} {shows} linear atelectasis with elevation of the hemidiaphragm.",),
        absent=("atelectasis", "lobar atelectasis", "atelectasis"),
        sizes=("minimal", "moderate", "marked"),
    ),
    "Lung Lesion": Words(
        one=(
            "a {size} nodule in the {side} {zone} lung",
            "a {size} {side} {zone} zone pulmonary nodule",
            "a {size} rounded {side} lung nodule",
        ),
        absent=("pulmonary nodule", "suspicious nodule", "lung nodule"),
        sizes=("small", "well-defined", "large"),
    ),
    "Lung Opacity": Words(
        one=("{side} {zone} lung opacity", "a hazy opacity in {lung}", "increased opacity in {lung}"),
        absent=("opacity",),
    ),
    "Fracture": Words(
        one=(
            "a {side} lateral rib fracture",
            "a {size} {side} rib fracture",
            "a fracture of a {side} lateral rib",
        ),
        absent=("displaced rib fracture", "acute fracture", "rib fracture"),
        normal=("The ribs are intact, without fracture.", "Osseous structures show no fracture."),
        sizes=("minimally displaced", "mildly displaced", "displaced"),
    ),
    "Cardiomegaly": Words(
        one=(
            "{size} cardiomegaly",
            "{size} enlargement of the cardiac silhouette",
            "{size} cardiac enlargement",
        ),
        seen=(
            "The heart is {size}ly enlarged.",
            "The cardiac silhouette is {size}ly enlarged.",
            "The heart size is {size}ly increased, consistent with cardiomegaly.",
        ),
        absent=("cardiomegaly", "cardiac enlargement"),
        normal=(
            "The heart size is normal.",
            "The cardiac silhouette is normal in size.",
            "The heart is not enlarged.",
            "Normal heart size.",
        ),
    ),
    "Enlarged Cardiomediastinum": Words(
        one=("mediastinal widening", "a widened mediastinum", "{size} widening of the mediastinum"),
        absent=("mediastinal widening",),
    ),
    "Support Devices": Words(one=("an overlying support device", "an indwelling catheter")),
}

DEVICES: Mapping[str, tuple[str, ...]] = {
    "central line": (
        "A central venous catheter terminates in the SVC.",
        "The tip of the central venous catheter projects over the cavoatrial junction.",
    ),
    "endotracheal tube": (
        "The endotracheal tube ends {height} cm above the carina.",
        "An endotracheal tube is in place, its tip {height} cm above the carina.",
    ),
    "enteric tube": (
        "An enteric tube courses below the diaphragm.",
        "The enteric tube passes into the stomach and out of view.",
    ),
    "pacemaker": (
        "A left-sided pacemaker with two leads is in unchanged position.",
        "Pacemaker leads project over the right atrium and right ventricle.",
    ),
    "chest tube": ("A chest tube is in place.", "The chest tube projects over the upper hemithorax."),
}

PRESENT = ("There is {it}.", "{It} is seen.", "{It} is noted.", "{It} is present.", "The study shows {it}.")
PRESENT_TWO = (
    "There are {it}.",
    "{It} are seen.",
    "{It} are noted.",
    "{It} are present.",
    "The study shows {it}.",
)
HEDGED = (
    "Possible {bare}.",
    "{It} cannot be excluded.",
    "There may be {it}.",
    "Questionable {bare}.",
    "Appearances may represent {it}.",
    "{It} is difficult to exclude.",
)
DENIED = (
    "There is no {list}.",
    "No {list}.",
    "No evidence of {list}.",
    "No {list} is seen.",
    "No {list} is identified.",
)

WELL = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "No acute intrathoracic process.",
    "No radiographic evidence of acute cardiopulmonary disease.",
    "Normal chest radiograph.",
    "No acute findings in the chest.",
    "No acute cardiopulmonary abnormality identified.",
    "Unremarkable examination of the chest.",
)

OPENINGS = {
    "PA": (
        "PA view of the chest was obtained.",
        "Upright PA radiograph of the chest.",
        "A PA view is reviewed.",
    ),
    "AP": (
        "Portable AP view of the chest.",
        "AP portable radiograph of the chest.",
        "A single AP view is reviewed.",
    ),
    "LATERAL": ("A lateral view was also obtained.", "The lateral view is included."),
}
ASIDES = (  # true of nearly anyone, and about nothing that is labelled
    "The aorta is mildly tortuous.",
    "The aortic knob is calcified.",
    "Degenerative changes are seen in the thoracic spine.",
    "The hilar contours are unremarkable.",
    "The trachea is midline.",
    "Lung volumes are low.",
    "The patient is slightly rotated.",
    "The imaged upper abdomen is unremarkable.",
    "There is no free air below the diaphragm.",
    "Comparison is made to the prior study of ___.",
    "The bony thorax is demineralized.",
    "The soft tissues are unremarkable.",
    "Gas is seen in the stomach.",
    "Evaluation is limited by patient body habitus.",
)
REASONS = (
    "cough",
    "shortness of breath",
    "chest pain",
    "fever",
    "hypoxia",
    "fall",
    "altered mental status",
    "weakness",
)
