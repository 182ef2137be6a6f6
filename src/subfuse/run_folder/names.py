"""What the files and folders of a run are called. They are spelt here alone; some hold a place for `str.format`."""

from subfuse.cohort import marker

# Of a run
CONFIG = "config.yaml"  # what it was asked for; written first
PREDICTIONS = "predictions.csv"  # of a run and of a job, each of which it marks finished
PROVENANCE = marker.PROVENANCE  # of a run, a job, the copy of the cohort, and a model that was explained
METRICS = "metrics.csv"
COMPARISONS = "comparisons.csv"
STUDENTS = "students.csv"  # models that were taught beside their teachers; absent without any
FAILURES = "failures.csv"  # jobs that failed; in EXPLANATIONS what could not be explained
FAILED_RESULTS = "failed_results.csv"  # what, reason: what could not be made of the predictions; absent where all was
AUDIT = "audit.json"
REPORT = "report.html"
MODEL_CARD = "MODEL_CARD.md"
RESULTS = (PREDICTIONS, METRICS, COMPARISONS, STUDENTS, FAILURES, FAILED_RESULTS, AUDIT, PROVENANCE, REPORT, MODEL_CARD)
COHORT = "cohort"  # folder: what a report tells of the prepared cohort; in EXPLANATIONS what models rely on
EXPLANATIONS = "explanations"  # folder: of the main model; of others in a folder of their own beside it
HELD_OUT_SITES = "held-out-sites"  # folder: the same models over folds of whole hospitals, a run of its own

# Of a job
INPUTS = "inputs.json"  # hashes of what the others are made from; written first
MODEL = "model.json"
WEIGHTS = "model.safetensors"
LOG = "log.csv"  # one row per epoch or penalty
SEARCH = "search.csv"
TEACHER = "teacher"  # folder: of a job whose model is taught, the teacher that the run itself does not have
TEACHER_PREDICTIONS = "teacher_predictions.csv"  # of its test patients
CHECKPOINT = "last.ckpt"  # of an unfinished training

# Of the copy of the cohort: named as in the prepared folder
PATIENTS = marker.PATIENTS
EXCLUSIONS = marker.EXCLUSIONS
SLIDES = marker.SLIDES
SLIDE_QUALITY = marker.SLIDE_QUALITY
GENE_SET_COVERAGE = marker.GENE_SET_COVERAGE
HARMONISATION = marker.HARMONISATION
CONTACT_SHEETS = "contact_sheets"  # folder

# Of one explained prediction
EXPLANATION = "explanation.json"  # marks the folder complete
GENES = "genes.csv"  # of a patient: contributions; of a cohort: what is summed up of them
PATCHES = "patches.csv"
POINTS = "points.csv"
ANNOTATIONS = "{slide_id}.geojson"
HEAT_MAP = "heatmap_{subspace}_{slide_id}.png"
SAMPLING_MAP = "sampling_{slide_id}.png"
GALLERY = "gallery_{subspace}.jpg"

# Of what the models of one task rely on
SUMMARY = "summary.json"  # marks the folder complete
GENE_VALUES = "gene_values.csv"
GENE_STABILITY = "gene_stability.csv"
ENRICHMENT = "enrichment.csv"
CONTRIBUTIONS = "contributions.csv"
FAITHFULNESS = "faithfulness.csv"
FAITHFULNESS_SUMMARY = "faithfulness.json"
FAITHFULNESS_CURVES = "faithfulness_curves.csv"
MODELS = "models"  # folder: of each model, what the others are made of
MODEL_TABLES = {  # patient by patient
    "genes": GENES,
    "contributions": CONTRIBUTIONS,
    "gaps": "gaps.csv",
    "faithfulness": FAITHFULNESS,
    "curves": "curves.csv",
}
DONE = "done.txt"  # marks the tables of a model complete, and holds their hashes

# Of models that are shared, beside MODEL and WEIGHTS of every job
MANIFEST = "subfuse.json"  # what there is, with hashes; written last
REFERENCE = "reference.json"  # of a job: what predictions are read beside
CARD = "README.md"
