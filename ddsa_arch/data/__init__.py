from ddsa_arch.data import lmdb_backend as lmdb_backend  # gives BasicSR's file client the shared LMDB reader
from ddsa_arch.registration import import_registering_modules

import_registering_modules(__name__, '_dataset')
