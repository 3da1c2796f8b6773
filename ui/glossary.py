"""The studio's terms, each in a sentence."""

from __future__ import annotations

import streamlit as st

TERMS: dict[str, dict[str, str]] = {  # group -> term -> meaning
    "The networks": {
        "G, the generator": "draws a voice from a face x, noise z and a condition c.",
        "D, the discriminator": "learns to tell G's voices from real ones, and so teaches G.",
        "Q": "names the emotion of a voice while G learns, and so teaches G to keep it.",
        "Judge (scorer)": "names the emotion of a voice, too, but learnt from real voices alone "
        "and never met G; FID, KID and IS are measured with it.",
        "f_S, the face classifier": "names the emotion of a face.",
        "f_T": "names the emotion of a real voice; it is the baseline.",
        "z": "random numbers: another z is another voice for the same face.",
        "c, the condition": "what G is told of the emotion beside the face.",
        "Label · Classifier · CP": "the three conditions: one emotion by name; f_S's softmax; the "
        "conformal p-values of all emotions.",
        "Flow": "our generator that is no GAN: it turns noise into a voice in many small steps.",
    },
    "The data": {
        "S1, S2, S3, S4": "four sets that share no person: S1 trains the classifiers, S2 "
        "calibrates and chooses, S3 trains G and D, S4 holds the test people.",
        "Fold": "one way of dividing the people into the sets; five folds test everybody once.",
        "N": "how many samples a figure is measured on.",
        "Chance": "what guessing would reach: one divided by the number of emotions.",
        "Mel spectrogram": "a voice as a picture: time across, pitch regions (bands) upwards, "
        "loudness as colour.",
        "Vocoder": "the network that makes a spectrogram audible; Griffin-Lim does it without one.",
    },
    "Conformal prediction": {
        "Softmax": "a classifier's shares for the emotions; they sum to 1 and may be too sure.",
        "Calibration set": "cases with known labels that the classifier has not learnt from; a new "
        "case is compared with them.",
        "Nonconformity α": "how badly a label fits a case; larger is stranger.",
        "Margin · hinge": "two ways to measure it: the best other label's share minus this one's; "
        "or one minus this label's share.",
        "p-value": "the share of calibration cases that fit their own label no better than this "
        "case fits its label.",
        "ε (significance)": "the share of errors that is allowed.",
        "Prediction set": "all labels whose p-value is above ε: it misses the true one in a share "
        "ε of cases at most, if cases are exchangeable.",
        "Exchangeable": "no order of the cases is likelier than another: calibration and test come "
        "from the same source. New people or new recordings break it.",
        "Credibility": "the largest p-value: low means that no label fits well.",
        "Confidence": "one minus the second largest p-value: high means that all other labels can "
        "be ruled out.",
        "Pooled · by class": "α is compared with all calibration cases, or with those of the same "
        "label (Mondrian).",
        "Smoothed": "ties are broken at random, so that the error is exactly ε.",
    },
    "The figures": {
        "FID": "distance between generated and real voices in the judge's features; lower is "
        "better. Its floor is the distance between two sets of real voices.",
        "KID": "the same without FID's bias for few samples; lower is better.",
        "IS": "how sure and how varied the judge's answers are; higher is better.",
        "Diversity": "how much of a voice the noise decides, compared with how real voices differ.",
        "Coverage": "share of real voices that have a generated one near them.",
        "Augmentation": "generated voices are added to S1's real ones; the question is whether a "
        "classifier then does better on S4.",
        "Checkpoint": "the networks at one step of a training, with samples that can be heard.",
        "Seed": "the number from which all random choices follow; the same seed is the same run.",
    },
}


def show_terms() -> None:
    """All terms in their groups."""
    for column, groups in zip(st.columns(2, gap="large"), (list(TERMS)[:2], list(TERMS)[2:])):
        with column:
            for group in groups:
                st.header(group, divider="gray")
                st.markdown("\n\n".join(f"**{k}** {v}" for k, v in TERMS[group].items()))
