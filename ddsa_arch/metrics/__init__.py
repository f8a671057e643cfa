from ddsa_arch.registration import import_registering_modules

import_registering_modules(__name__, '_metric')
