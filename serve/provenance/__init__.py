"""Where a package comes from, what is in it, and who vouches for it.

Bottom up: `keys` and `keyfiles` are signing keys in cosign's files; `simplesigning` and `dsse` are
the two kinds of signatures; `inventory` reads what is in a package's layers; `spdx`, `cyclonedx`
and `slsa` make documents of it; `artifacts` are the OCI manifests that carry all of them beside
their subject; `checks` tells whether they hold; `local` does this to packages in a workspace and
`remote` to images in a registry; `policy` is what deployments require.
"""
