"""The commented `cohort.yaml` that `subfuse init` writes."""

TEMPLATE = """\
# A cohort: who the patients are and where their slides, expression and outcomes lie.
# Paths are relative to this file. `subfuse check cohort.yaml` says what is found, joined and excluded.

name: my-cohort                  # letters, digits, dots, dashes; appears in every table
role: develop                    # develop: models are trained on it; external: only evaluated on it

# Several cohorts: instead of role, patients, slides and expression a list `cohorts:`, each with its name and these four
# sections. Those that are developed on are pooled; all share gene_sets, tasks, covariates and splits.
# cohorts:
#   - {name: tcga, role: develop, patients: {table: tcga.csv}, slides: {folder: tcga/}}
#   - {name: cptac, role: external, patients: {table: cptac.csv}, slides: {folder: cptac/}}

patients:
  table: patients.csv            # one row per patient; a list: tables below one another
  format: plain                  # plain (csv, tsv, or a workbook as book.xlsx#Sheet), gdc (clinical.tsv, .tar.gz or
                                 # .json of the GDC portal), or cbioportal (data_clinical_patient.txt and
                                 # data_clinical_sample.txt as a list)
  columns:                       # our name: column of your table. Without this section columns keep their names.
    patient_id: case_id
    time_days: os_days           # from diagnosis to the event or to the last contact; or dates, time_from and time_to
    event: os_event              # true or 1: the event was observed; false or 0: censored
    # site: hospital             # contributing hospital; taken from TCGA barcodes when absent
    grade: grade                 # any further column is a label; empty cells are unknown
    diagnosis: diagnosis
    age: age
    gender: gender
  # time_unit: months            # of the column mapped to time_days: days (default), weeks, months, years
  # event_values: {Dead: true, Alive: false}   # needed where the event column has other words, or a name such as
                                               # vital_status, os_status or censored whose meaning differs
                                               # or a cause, {1: tumour, 2: other, 0: false}: tasks may name a `cause`
  # endpoints:                   # further follow-ups, of columns named above: tasks of pfi_days and pfi_event
  #   pfi: {time: pfi_months, event: pfi, time_unit: months}
  # include: [P001, P002]        # only these patients of the table
  # labels:                      # a further table of the same patients, such as molecular markers
  #   table: markers.csv
  #   columns: {patient_id: case_id, idh: idh, codeletion_1p19q: codel, cdkn2a: cdkn2a_gistic}
  # derive:                      # diagnosis, diagnosis_basis and subtype of gliomas from the columns idh,
  #   diagnosis: {rule: who2021} # codeletion_1p19q, cdkn2a, grade, histology; cdkn2a: any_loss counts one lost copy

slides:                          # leave out if there are none
  table: slides.csv              # slide_id, patient_id; optional path, mpp (µm per pixel where the slide lacks it)
  folder: slides/                # <slide_id>.svs, .tiff, ... or folders of tiles named <slide_id>. Without a table,
                                 # names must start with the patient identifier
  # mpp: 0.5                     # µm per pixel of every slide that neither says so itself nor in the table
  # features: features/          # instead of a folder of slides: feature files of CLAM (.h5, .pt), TRIDENT, STAMP or
                                 #   wsidata (.zarr), named <slide_id>; most need mpp, here or in the slide table
  # encoder: uni_v1              #   what made them, where the files do not say
  # feature_table: slide_features.csv   # or one vector per slide: slide_id, then one numeric column per feature

expression:                      # leave out if there is none
  table: expression.csv.gz       # patients and genes, in either orientation
  unit: tpm                      # counts, rsem (expected or normalised counts), fpkm, fpkm_uq, tpm, zscore, or
                                 # log2_counts, log2_cpm, log2_fpkm, log2_fpkm_uq, log2_tpm (all log2(x + 1)),
                                 # log2_fpkm_001, log2_tpm_001 (log2(x + 0.001), Xena's Toil tables)
  # orientation: genes_by_patients   # or patients_by_genes; needed where the identifiers do not tell
  # gene_suffix: _rnaseq         # columns of genes end so, in a table that has others, such as that of the patients
  # patient_column: case_id      #   and whose its rows are
  # sample_sheet: samples.csv    # sample_id, patient_id, where samples are not TCGA barcodes
  # aliases: my_aliases.tsv      # previous, approved: gene names in addition to the built-in ones
  # standardise: cohort          # z-scores within the cohort: when units or laboratories differ between cohorts
  # exclude: [CSHL1]             # genes that models must not see, such as one that gives away the laboratory
  # format: gdc_star             # STAR files of the GDC portal instead of a table:
  # folder: star/                #   searched with its subfolders
  # sample_sheet: gdc_sample_sheet.tsv       # or metadata: metadata.cart.json; optional manifest: gdc_manifest.txt
  # format: ivygap               # folder with fpkm_table.csv, rows-genes.csv, columns-samples.csv
  # format: cbioportal           # table: data_mrna_seq_v2_rsem.txt, sample_sheet: data_clinical_sample.txt
  # format: xena                 # table: HiSeqV2.gz; aliases: a probe map, where genes are Ensembl identifiers
  # format: h5ad                 # table: expression.h5ad; patient_column: a column of obs

gene_sets:                       # the subspaces, any number: builtin, a GMT file, or some sets of a file
  tumour: builtin
  microenvironment: builtin
  # hypoxia: {gmt: hallmark.gmt, sets: [HALLMARK_HYPOXIA]}

tasks:
  survival: {time: time_days, event: event}
  grade: {column: grade, classes: [G2, G3, G4], ordinal: true}   # classes fixes their order, and other labels are an
                                                                 # error; ordinal: the order means something
  diagnosis: {column: diagnosis}
  # markers: {columns: [idh, mgmt]}   # labels of two classes each: the tasks markers_idh and markers_mgmt

covariates: [age, gender]        # columns that models see beside expression: numbers, or words; of two words the later
                                 # in the alphabet is coded 1 and the covariate named after it (gender=male), of more
                                 # each is coded (idh=mutant, idh=wildtype, ...)
# batch: project                 # a column of projects, scanners or sequencing runs, or `cohort` where several are
                                 # pooled: what it alone predicts is compared with every model, as hospitals are
# strata: [idh, batch]           # columns within which the audit shows results too: what is left of a metric where
                                 # patients are alike

splits:
  folds: 5                       # patients never cross folds
  validation: 0.15               # share of the other patients kept for choosing the model
  stratify: [event]              # event or label columns whose mixture is kept equal across folds
  repeats: 1                     # draw all folds this often, each time anew
  by: patient                    # site: all patients of a contributing hospital are in one fold
  seed: 0
  # folder: splits/              # instead of folds: one CSV per fold with columns train and val
"""
